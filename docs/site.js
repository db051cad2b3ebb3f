// Wide tables scroll within a box that the theme's script makes. People who use the keyboard alone must be able to reach it.
"use strict";

const reach = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    box.tabIndex = 0;
  }
};
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
reach();
