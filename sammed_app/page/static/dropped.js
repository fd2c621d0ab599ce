// The files of a drop: those of folders too, hidden ones left out.

const MOST = 4000;

export async function filesOf(transfer) {
  // Entries must be asked for before anything is awaited; the list is gone afterwards.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const plain = [...transfer.files];
  if (!entries.some((entry) => entry?.isDirectory)) return visible(plain);
  const found = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return visible(found);
}

export function visible(files) {
  return files.filter((file) => !file.name.startsWith("."));
}

async function walk(entry, found) {
  if (found.length > MOST || entry.name.startsWith(".")) return;
  if (entry.isFile) {
    found.push(await new Promise((done, failed) => entry.file(done, failed)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await walk(one, found);
  }
}
