export { WhisperClient } from "./client.js";
export { WhisperError } from "./errors.js";
export type { Code } from "./errors.js";
export type { Lane, Notification } from "./frames.js";
export type { State, TokenSource, WhisperOptions } from "./options.js";
export type { WhisperStorage } from "./storage.js";
export type { SocketConstructor, SocketLike } from "./socket.js";
