// What the page of the browser's tests loads.
import { play } from "./conformance.js";

Object.assign(globalThis, { play });
