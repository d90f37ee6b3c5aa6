// The page's own files: fetched from where the page is, or, where it was opened from a folder, out of a script there.

declare global {
  var FOLDER: Record<string, string> | undefined;
}

type Progress = (loaded: number, total: number) => void;

const fromFolder = location.protocol === "file:";

/** Where a page was opened from a folder: run the script that holds its files. */
export async function open(): Promise<void> {
  if (!fromFolder) return;
  await new Promise<void>((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "folder.js";
    script.onload = () => resolve();
    script.onerror = () => reject(new Error("folder.js is missing; export the page again"));
    document.head.append(script);
  });
}

/** A file's bytes. */
export async function bytes(name: string, progress: Progress = () => {}): Promise<ArrayBuffer> {
  if (fromFolder) return unpacked(name);
  const answer = await fetch(name).catch(() => null);
  if (!answer?.ok || !answer.body) throw new Error(`${name} cannot be loaded`);
  const total = Number(answer.headers.get("Content-Length")) || 0;
  let loaded = 0;
  const counted = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      progress((loaded += chunk.byteLength), total);
      controller.enqueue(chunk);
    },
  });
  return new Response(answer.body.pipeThrough(counted)).arrayBuffer();
}

/** What a gzip file holds. */
export async function inflate(packed: ArrayBuffer): Promise<ArrayBuffer> {
  if (new DataView(packed).getUint16(0) !== 0x1f8b) return packed; // a server has unpacked it on the way
  const stream = new Response(packed).body!.pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** The worker of this name. */
export function worker(name: string): Worker {
  if (!fromFolder) return new Worker(name);
  return new Worker(URL.createObjectURL(new Blob([unpacked(name)], { type: "text/javascript" })));
}

function unpacked(name: string): ArrayBuffer {
  const packed = globalThis.FOLDER?.[name];
  if (packed === undefined) throw new Error(`${name} is missing in folder.js; export the page again`);
  return Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0)).buffer;
}
