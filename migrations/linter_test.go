package migrations_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// landed holds a line for each file that has landed: its name, a view's revision, and the SHA-256 of its text.
const landed = "testdata/landed.sum"

func sum(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:])
}

// A migration that has landed was applied somewhere: an edit would reach only some databases. A view may be edited,
// if its revision grows: otherwise no database that has it would get the new text.
func TestLandedFilesAreNotEdited(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(landed)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, digest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || known[name] != "" {
			t.Fatalf("%s: not a name and a sum, or the name a second time: %q", landed, line)
		}
		known[name] = digest
	}
	files := append(glob(t, "sql/*.sql"), glob(t, "views/*.sql")...)
	for _, file := range files {
		name := file
		if strings.HasPrefix(file, "views/") {
			first, _, _ := strings.Cut(read(t, file), "\n")
			name += "@" + strings.TrimPrefix(first, "-- revision ")
		}
		switch digest := sum(t, file); known[name] {
		case digest:
		case "":
			t.Errorf("%s is new: add to %s the line\n%s %s", name, landed, name, digest)
		default:
			t.Errorf("%s was edited after it had landed: write a new migration, or, for a view, raise its revision", name)
		}
	}
	for name := range known {
		file, _, _ := strings.Cut(name, "@")
		if !slices.Contains(files, file) {
			t.Errorf("%s is gone", file)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	return files
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lintFrom is the first migration that the rules below hold for; those before had landed.
const lintFrom = "sql/00007"

// partitioned are the tables whose days hold the rows.
const partitioned = `(deliveries|attempts|timeline|notification_requests|notification_shards|delivery_stat_shards)`

// The rules of a migration: what is forbidden, and why.
var forbidden = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`(?i)\bCREATE (OR REPLACE )?VIEW\b`), "views stand in views/, where there is one text of each"},
	{regexp.MustCompile(`(?i)\bDROP (TABLE|COLUMN|TYPE)\b`), "programs of the version before still use it"},
	{regexp.MustCompile(`(?i)\bRENAME\b`), "programs of the version before use the old name"},
	{regexp.MustCompile(`(?i)\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b`), "it rewrites the table while everyone waits"},
	{regexp.MustCompile(`(?i)\bSET NOT NULL\b`), "it reads the table while everyone waits; programs of the version before may write nulls"},
	{regexp.MustCompile(`(?i)\bADD COLUMN [^,;]*\bNOT NULL\b(?:[^,;D]|D[^E])*[,;]`), "programs of the version before do not write it: give it a constant default, or let it be null"},
	{regexp.MustCompile(`(?i)\bADD COLUMN [^,;]*\bDEFAULT\s+\w*(random|clock_timestamp|gen_random_uuid|now|nextval)\b`), "such a default rewrites the table while everyone waits"},
	{regexp.MustCompile(`(?i)\bCREATE (UNIQUE )?INDEX (CONCURRENTLY )?(IF NOT EXISTS )?\w+ ON ` + partitioned + `\b`), "it stops the writers of every day while it is built: ON ONLY, and migrate builds the days' side by side with them"},
	{regexp.MustCompile(`(?i)\bADD (CONSTRAINT \w+ )?(CHECK|FOREIGN KEY|UNIQUE|PRIMARY KEY)\b`), "it reads the table while everyone waits"},
	{regexp.MustCompile(`(?im)^\s*(UPDATE|DELETE FROM|TRUNCATE) `), "rows are the projector's to change, in pieces"},
	{regexp.MustCompile(`(?i)\b(LOCK TABLE|VACUUM|CLUSTER|REINDEX)\b`), "everyone waits"},
	{regexp.MustCompile(`\bwhisper\.`), "the same file builds the schema of a rebuild: names are relative"},
	{regexp.MustCompile(`(?i)lock_timeout`), "migrate sets it"},
}

func lint(text string) []string {
	text = regexp.MustCompile(`--[^\n]*`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`'(?:[^']|'')*'`).ReplaceAllString(text, "''")
	var why []string
	for _, rule := range forbidden {
		if found := rule.pattern.FindString(text); found != "" {
			why = append(why, fmt.Sprintf("%q: %s", strings.TrimSpace(found), rule.why))
		}
	}
	return why
}

func TestMigrationsKeepToTheRules(t *testing.T) {
	t.Parallel()
	for _, file := range glob(t, "sql/*.sql") {
		if file < lintFrom {
			continue
		}
		text := read(t, file)
		for _, why := range lint(text) {
			t.Errorf("%s: %s", file, why)
		}
		if !strings.Contains(text, "-- +goose Down\n-- Forward only.") {
			t.Errorf("%s: does not end with an empty Down", file)
		}
	}
	for _, file := range glob(t, "views/*.sql") {
		text := read(t, file)
		if !regexp.MustCompile(`^-- revision [1-9]\d*\n`).MatchString(text) {
			t.Errorf("%s: does not begin with its revision", file)
		}
		if regexp.MustCompile(`(?i)\bDROP\b`).MatchString(text) {
			t.Errorf("%s: a view that is dropped takes along what others built on it", file)
		}
		if found := regexp.MustCompile(`(?i)CREATE VIEW|\bwhisper\.`).FindString(text); found != "" {
			t.Errorf("%s: %q: views are replaced, and their names are relative", file, found)
		}
	}
}

func TestTheRulesOfMigrationsSeeWhatTheyForbid(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"CREATE VIEW a AS SELECT 1;", "DROP TABLE attempts;", "ALTER TABLE deliveries DROP COLUMN note;", "ALTER TABLE deliveries RENAME COLUMN a TO b;",
		"ALTER TABLE deliveries ALTER COLUMN note TYPE int;", "ALTER TABLE deliveries ALTER note SET NOT NULL;", "ALTER TABLE deliveries ADD COLUMN a int NOT NULL;",
		"ALTER TABLE deliveries ADD COLUMN a uuid DEFAULT gen_random_uuid();", "CREATE INDEX a ON deliveries (note);", "CREATE INDEX CONCURRENTLY a ON attempts (at);",
		"ALTER TABLE attempts ADD CHECK (attempt > 0);", "UPDATE deliveries SET note = NULL;", "DELETE FROM attempts;", "LOCK TABLE deliveries;",
		"ALTER TABLE whisper.deliveries ADD COLUMN a int;", "SET lock_timeout = 0;",
	} {
		if len(lint(bad)) == 0 {
			t.Errorf("nothing is said of %s", bad)
		}
	}
	for _, good := range []string{
		"ALTER TABLE deliveries ADD COLUMN a int;", "ALTER TABLE deliveries ADD COLUMN a int NOT NULL DEFAULT 0;", "CREATE INDEX a ON ONLY deliveries (note);",
		"CREATE TABLE a (b int NOT NULL, PRIMARY KEY (b));\nCREATE INDEX c ON a (b);", "COMMENT ON TABLE a IS 'DROP TABLE; whisper.deliveries';",
	} {
		if why := lint(good); len(why) > 0 {
			t.Errorf("%s: %v", good, why)
		}
	}
}
