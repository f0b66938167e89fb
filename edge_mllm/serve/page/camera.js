// The camera, and one frame of it at a time.
import { dataUrl } from "./picture.js";

const WANTED = { video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } } };
const QUALITY = 0.92;

export class CameraError extends Error {}

export class Camera {
  constructor(video) {
    this.video = video;
    this.canvas = document.createElement("canvas");
    this.stream = null;
    this.seen = 0;
  }

  get on() {
    return this.stream !== null;
  }

  get size() {
    return { width: this.video.videoWidth, height: this.video.videoHeight };
  }

  /** Show what the camera sees. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new CameraError("Browsers give a page the camera only on this machine or over https (options tls-cert and tls-key).");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia(WANTED);
    } catch (error) {
      throw new CameraError(`The camera cannot be had: ${error.message}`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    this.video.hidden = false;
    this.seen = 0;
    this.#count();
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
    this.video.hidden = true;
  }

  /** The frame that is seen now, as it stands in a request. */
  async frame() {
    const { width, height } = this.size;
    Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").drawImage(this.video, 0, 0);
    return dataUrl(await new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", QUALITY)));
  }

  /** Count frames, those that nobody asks about among them. */
  #count() {
    this.video.requestVideoFrameCallback?.(() => {
      this.seen += 1;
      if (this.on) {
        this.#count();
      }
    });
  }
}
