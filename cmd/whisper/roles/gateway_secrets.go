package roles

import (
	"slices"
	"strings"
)

// publicSecrets were or are in this repository: whoever has read it can make tokens with them, for any user.
var publicSecrets = []string{
	"whisper dev: everybody knows this secret",   // of `whisper dev`, before it made its own
	"for-this-machine-only-and-32-bytes-or-more", // docker-compose.yml, which says that it is meant
}

// isPublicSecret also knows them with white space around them, as a file or a shell adds it.
func isPublicSecret(secret string) bool {
	return slices.Contains(publicSecrets, strings.TrimSpace(secret))
}
