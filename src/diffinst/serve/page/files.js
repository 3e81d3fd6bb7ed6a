// What a person drops: files, and the images in folders.

const IMAGE = /\.(png|jpe?g|tiff?|bmp|webp|gif)$/i;
const inOrder = (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true});

/** {files, folders, unread}: of a folder what looks like an image, by name; folders: whether there was one; unread: names. */
export async function filesOf(transfer) {
  const unread = [];
  const read = (entry, ask) => new Promise(done => ask(done, () => { unread.push(entry.name); done([]); }));
  const file = entry => read(entry, (done, failed) => entry.file(one => done([one]), failed));
  async function inside(folder) {
    const reader = folder.createReader(), entries = [];
    for (let some; (some = await read(folder, (done, failed) => reader.readEntries(done, failed))).length;) entries.push(...some);
    const wanted = entries.sort(inOrder).filter(entry => entry.isDirectory || IMAGE.test(entry.name));
    return (await Promise.all(wanted.map(entry => entry.isDirectory ? inside(entry) : file(entry)))).flat();
  }
  // at once: it is empty later; an image dragged out of a page is a file without an entry
  const given = [...transfer.items].map(item => item.webkitGetAsEntry() ?? item.getAsFile()).filter(Boolean);
  const found = await Promise.all(given.map(one => one.isDirectory ? inside(one) : one.isFile ? file(one) : [one]));
  return {files: found.flat(), folders: given.some(one => one.isDirectory), unread};
}
