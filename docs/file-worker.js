// The site's search runs in a worker, and browsers start no worker for pages opened from disk. There this class stands in for
// it: the worker's script runs in a hidden frame. The theme would load such a script from a CDN; docs/site.py puts this one there.
"use strict";

if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      // As with a worker, messages are copies and come later.
      inner.postMessage = (message) => setTimeout(() => {
        const event = new MessageEvent("message", { data: structuredClone(message) });
        this.onmessage?.(event);
        this.dispatchEvent(event);
      });
      const script = inner.document.createElement("script");
      script.src = url;
      this.loaded = new Promise((resolve) => script.addEventListener("load", resolve));
      inner.document.body.append(script);
    }

    postMessage(message) {
      const data = structuredClone(message);
      this.loaded.then(() => {
        const inner = this.frame.contentWindow;
        inner?.dispatchEvent(new inner.MessageEvent("message", { data }));
      });
    }

    terminate() {
      this.frame.remove();
    }
  };
}
