package roles

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Whoever copies a secret from the repository's pages and settings has one that everybody knows: a gateway refuses it, or
// it is not there.
func TestSecretsInTheRepositoryAreRefused(t *testing.T) {
	t.Parallel()
	literal := regexp.MustCompile(`(?i)(?:auth[-_]secret|\bsecret)["']?\s*[:= ]\s*["']?(?:\$\{WHISPER_AUTH_SECRET:-)?([^\s"'}$<…|` + "`" + `][^"'}$<…|` + "`" + `\n]{31,})`)
	seen, found := 0, 0
	for _, root := range []string{"docs", "deploy", "README.md", "docker-compose.yml", "Makefile", "CONTRIBUTING.md"} {
		err := filepath.WalkDir(filepath.Join("..", "..", "..", root), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			seen++
			for line := range strings.Lines(string(text)) {
				m := literal.FindStringSubmatch(line)
				if m == nil || strings.HasPrefix(strings.TrimSpace(line), "|") || strings.Count(m[1], " ") > 8 { // a table's or a sentence's words
					continue
				}
				found++
				if !isPublicSecret(m[1]) {
					t.Errorf("%s: %q can be read by everybody: let it be made, or add it to publicSecrets", path, m[1])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 10 || found == 0 {
		t.Errorf("%d secrets in %d files", found, seen)
	}
}

func TestAPublicSecretIsKnownWithWhiteSpace(t *testing.T) {
	t.Parallel()
	for _, secret := range publicSecrets {
		for _, given := range []string{secret + "\n", " " + secret, "\t" + secret + "\r\n"} {
			if err := (authFlags{AuthSecret: given}).checkSecrets(); err == nil {
				t.Errorf("%q is taken", given)
			}
		}
	}
}
