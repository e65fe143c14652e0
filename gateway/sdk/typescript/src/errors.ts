/**
 * What went wrong. After these the client has stopped for good:
 *
 * - `unauthorized`: the server does not accept the token (4001), and there is no callback for another, or
 *   the callback threw a `WhisperError` of this code;
 * - `expired`: the token has expired (4002), and there is no callback for another;
 * - `refused`: the server refuses the connection (an HTTP status that no waiting changes; browsers hide it);
 * - `environment`: there is no WebSocket here and none was given, or `url` is relative and there is no page.
 *
 * The others are told to `onError`, and the client goes on:
 *
 * - `handler`: `onNotification` failed; the notification comes again;
 * - `token`: the callback for a token failed; it is tried again;
 * - `server`: the server could not use a frame, or sent one that can't be read;
 * - `connection`: a connection ended or could not be made;
 * - `dropped`: too many reads wait; the oldest were forgotten;
 * - `storage`: the storage can't keep what is to survive a reload (told once).
 */
export type Code = "unauthorized" | "expired" | "refused" | "environment" | "handler" | "token" | "server" | "connection" | "dropped" | "storage" | "closed";

/** The only kind of error that this package throws, rejects with or tells `onError`. */
export class WhisperError extends Error {
  override readonly name = "WhisperError";

  constructor(
    readonly code: Code,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
