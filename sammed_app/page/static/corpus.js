export async function mount(root) { root.textContent = "corpus"; return {}; }
