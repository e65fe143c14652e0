#!/bin/sh
# Checks and tests the SDK and the page of whisper dev with what this machine has, and says what it has
# not. With WHISPER_REQUIRE_REAL=1 that is an error: CI sets it.
set -eu
cd "$(dirname "$0")/.."

lacking() { # what, and what is not done without it
  echo "sdk: $1: $2"
  [ "${WHISPER_REQUIRE_REAL:-}" != 1 ] || exit 1
}

node=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if [ "$node" -lt 20 ] || ! command -v npm >/dev/null; then
  lacking "there is no Node 20 or later with npm here" "the TypeScript SDK and the page of whisper dev were not tested"
  exit 0
fi
if ! scripts/install.sh; then
  lacking "the development dependencies can't be installed" "the TypeScript SDK and the page of whisper dev were not tested"
  exit 0
fi
npm run --silent check
npm run --silent build
if [ -z "${CHROMIUM:-}" ] && ! CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome); then
  lacking "there is no Chromium here" "the TypeScript SDK was tested in Node only, and the page of whisper dev was not"
  npm test --silent -- unit storage surroundings node docs
  exit 0
fi
export CHROMIUM
npm test --silent
