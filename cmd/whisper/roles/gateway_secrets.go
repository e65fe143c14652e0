package roles

import (
	"slices"
)

// publicSecrets were or are in this repository: whoever has read it can make tokens with them, for any user.
var publicSecrets = []string{
	"whisper dev: everybody knows this secret",   // of `whisper dev`, before it made its own
	"for-this-machine-only-and-32-bytes-or-more", // docker-compose.yml, which says that it is meant
}

func isPublicSecret(secret string) bool { return slices.Contains(publicSecrets, secret) }
