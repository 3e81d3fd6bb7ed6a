// What a person drops: files, and the images in folders.

const IMAGE = /\.(png|jpe?g|tiff?|bmp|webp|gif)$/i;
const inOrder = (a, b) => a.name.localeCompare(b.name, undefined, {numeric: true});

/** {files, folders}: of a folder what looks like an image, by name; folders: whether there was one. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean); // at once: it is empty later
  const found = await Promise.all(entries.map(entry => entry.isDirectory ? inside(entry) : file(entry)));
  return {files: found.flat(), folders: entries.some(entry => entry.isDirectory)};
}

const file = entry => new Promise((done, failed) => entry.file(done, failed));

async function inside(folder) {
  const reader = folder.createReader(), entries = [];
  for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length;) entries.push(...some);
  const wanted = entries.sort(inOrder).filter(entry => entry.isDirectory || IMAGE.test(entry.name));
  return (await Promise.all(wanted.map(entry => entry.isDirectory ? inside(entry) : file(entry)))).flat();
}
