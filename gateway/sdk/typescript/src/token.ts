/**
 * Milliseconds that a JWT is good for from now on; undefined where it does not say. The machine's clock may
 * be wrong: where it says more than the token's whole life, or less than nothing, the token counts as just issued.
 */
export function lifetime(token: string, now: number): number | undefined {
  const part = token.split(".")[1];
  if (part === undefined) {
    return undefined;
  }
  let claims: { exp?: unknown; iat?: unknown };
  try {
    claims = JSON.parse(atob(part.replace(/-/g, "+").replace(/_/g, "/"))) ?? {};
  } catch {
    return undefined;
  }
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
