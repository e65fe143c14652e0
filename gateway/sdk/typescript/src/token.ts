interface Claims {
  exp?: unknown;
  iat?: unknown;
  sub?: unknown;
}

/** The claims of a JWT, unchecked; none of what is not a JWT. */
function claimsOf(token: string): Claims {
  try {
    const claims: unknown = JSON.parse(decodeBase64URL(token.split(".")[1] ?? ""));
    return typeof claims === "object" && claims !== null ? claims : {};
  } catch {
    return {};
  }
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** Without atob, which not every JavaScript has (React Native before 0.74). A character a byte. */
function decodeBase64URL(text: string): string {
  let bits = 0;
  let held = 0;
  let decoded = "";
  for (const c of text) {
    const value = alphabet.indexOf(c);
    if (value < 0) {
      throw new Error("not base64url");
    }
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      decoded += String.fromCharCode((held >> bits) & 0xff);
    }
  }
  return decoded;
}

/** Whose token it is; undefined where it does not say. */
export function userOf(token: string): string | undefined {
  const { sub } = claimsOf(token);
  return typeof sub === "string" && sub !== "" ? sub : undefined;
}

/**
 * Milliseconds that a JWT is good for from now on; undefined where it does not say. The machine's clock may
 * be wrong: where it says more than the token's whole life, or less than nothing, the token counts as just issued.
 */
export function lifetime(token: string, now: number): number | undefined {
  const claims = claimsOf(token);
  if (typeof claims.exp !== "number") {
    return undefined;
  }
  const left = claims.exp * 1000 - now;
  if (typeof claims.iat === "number") {
    const whole = (claims.exp - claims.iat) * 1000;
    if (left > whole || left <= 0) {
      return whole;
    }
  }
  return left;
}

/**
 * When to ask for the next token: within the last two minutes, or two fifths of what is left, before the end, spread so
 * that clients that connected together don't ask together. undefined: never, or it is too late already.
 */
export function refreshIn(token: string, now: number, random: () => number): number | undefined {
  const left = lifetime(token, now);
  if (left === undefined) {
    return undefined;
  }
  const margin = Math.min(60_000, left / 5);
  return margin < 10 ? undefined : left - margin * (1 + random());
}
