// The picture that is asked about: chosen, photographed, dropped or pasted.

/** The frame on the page with what lies in it. `changed` is told of another picture, or of none. */
export class PictureFrame {
  constructor(frame, { image, empty }, changed) {
    Object.assign(this, { frame, image, empty, changed });
    this.current = null;
    this.invitation = empty.textContent;
    this.#acceptDrops();
    document.addEventListener("paste", (event) => {
      const file = pictureIn(event.clipboardData);
      if (file) {
        event.preventDefault();
        this.take(file);
      }
    });
  }

  /** Show a file and make it the current picture. */
  async take(file) {
    const taking = (this.taking = {});
    const url = await dataUrl(file);
    const size = await this.#show(file);
    if (this.taking === taking) {
      this.current = { url, ...size };
      this.changed(this.current);
    }
  }

  remove() {
    this.taking = null;
    this.current = null;
    this.image.hidden = true;
    this.empty.textContent = this.invitation;
    this.empty.hidden = false;
    this.changed(null);
  }

  async #show(file) {
    URL.revokeObjectURL(this.image.src);
    this.image.src = URL.createObjectURL(file);
    try {
      await this.image.decode();
    } catch {
      this.image.hidden = true;
      this.empty.hidden = false;
      this.empty.textContent = `This browser cannot show ${file.name || "the picture"}; it can be asked about all the same.`;
      return { width: 0, height: 0 };
    }
    this.image.hidden = false;
    this.empty.hidden = true;
    return { width: this.image.naturalWidth, height: this.image.naturalHeight };
  }

  #acceptDrops() {
    const over = (event) => {
      event.preventDefault();
      this.frame.classList.toggle("over", event.type === "dragover");
    };
    for (const name of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(name, over);
    }
    document.addEventListener("drop", (event) => {
      const file = pictureIn(event.dataTransfer);
      if (file) {
        this.take(file);
      }
    });
  }
}

function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type === "" || file.type.startsWith("image/"));
}

/** A blob as it stands in a request. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      const data = reader.result.slice(reader.result.indexOf(",") + 1);
      resolve(`data:${blob.type.startsWith("image/") ? blob.type : "image/png"};base64,${data}`);
    };
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
