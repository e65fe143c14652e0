package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// result is what one command line came to.
type result struct {
	code           int
	stdout, stderr string
}

func whisper(t *testing.T, env []string, args ...string) result {
	t.Helper()
	// Kafka's clients may still log while they end.
	var stdout, stderr written
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a command that waits for ever fails its test
	defer cancel()
	code := program{args: args, environ: env, stdout: &stdout, stderr: &stderr}.Run(ctx)
	return result{code, stdout.String(), stderr.String()}
}

// configFile writes one into the test's own folder.
func configFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// `send --dry-run` prints what its settings came to, without a broker.
func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	t.Parallel()
	yaml := "category: from-file\nuser: [mona, omar]\nbody: from-file\nttl: 1h\npartitions: 12\n"
	json := "{\n\t\"category\": \"from-file\",\n\t\"user\": [\"mona\", \"omar\"],\n\t\"body\": \"from-file\", \"ttl\": \"1h\"\n}"
	tests := map[string]struct {
		file string
		env  []string
		args []string
		want string
	}{
		"default":     {"", nil, []string{"--user=mona", "--body=b"}, `{"to":{"users":["mona"]},"content":{"body":"b"}}`},
		"yaml file":   {"c.yaml", nil, nil, `{"category":"from-file","to":{"users":["mona","omar"]},"content":{"body":"from-file"},"ttl":"1h"}`},
		"json file":   {"c.json", nil, nil, `{"category":"from-file","to":{"users":["mona","omar"]},"content":{"body":"from-file"},"ttl":"1h"}`},
		"environment": {"c.yaml", []string{"WHISPER_BODY=from-env", "WHISPER_USER=lina"}, nil, `{"category":"from-file","to":{"users":["lina"]},"content":{"body":"from-env"},"ttl":"1h"}`},
		"flag":        {"c.yaml", []string{"WHISPER_BODY=from-env"}, []string{"--body=from-flag", "--ttl", "5m"}, `{"category":"from-file","to":{"users":["mona","omar"]},"content":{"body":"from-flag"},"ttl":"5m"}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args, env := append([]string{"send", "--dry-run"}, tt.args...), tt.env
			switch tt.file {
			case "c.yaml":
				args = append(args, "--config", configFile(t, tt.file, yaml))
			case "c.json":
				env = append(env, "WHISPER_CONFIG="+configFile(t, tt.file, json))
			}
			got := whisper(t, env, args...)
			if got.code != exitOK || strings.TrimSpace(got.stdout) != tt.want {
				t.Errorf("exit code %d, %s%swant %s", got.code, got.stdout, got.stderr, tt.want)
			}
		})
	}
}

func TestAllBadSettingsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	path := configFile(t, "c.yaml", "retention: forever\nkafkaa: typo\nlog-format: xml\nreplication: {a: b}\n")
	got := whisper(t, []string{"WHISPER_PARTITIONS=many", "WHISPER_KAFKA=nowhere"}, "topics", "plan",
		"--config", path, "--duplicate-window=1s", "--kafka-sasl-mechanism=MD5", "--log-level=loud")
	if got.code != exitUsage || got.stdout != "" {
		t.Fatalf("exit code %d, stdout %q, want 2 and nothing", got.code, got.stdout)
	}
	for _, want := range []string{
		"whisper topics plan: 10 settings are wrong:",
		`--partitions: "many" is not a whole number, or is too large (from WHISPER_PARTITIONS)`,
		`--retention: "forever" is not a duration like 90s or 1h (from ` + path + `)`,
		path + `:2: no setting is called "kafkaa"`,
		`--log-format: unknown "xml": give auto, text or json`,
		path + ":4: replication must be a plain value or a list",
		`--kafka: "nowhere" is not host:port (from WHISPER_KAFKA)`,
		"--duplicate-window: 1s is out of range: give 1m to 720h",
		`--kafka-sasl-mechanism: unknown "MD5"`,
		"--kafka-sasl-mechanism: needs a user and a password: give kafka-sasl-user and kafka-sasl-password",
		`--log-level: unknown "loud"`,
		"`whisper topics plan --help` lists the settings.",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("%s does not say %q", got.stderr, want)
		}
	}
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		env  []string
		args []string
		want string
	}{
		"unknown command":     {nil, []string{"dispatsh"}, `did you mean "dispatch"?`},
		"unknown flag":        {nil, []string{"send", "--usr=mona"}, "unknown flag --usr"},
		"no value":            {nil, []string{"send", "--user"}, "--user"},
		"missing config file": {nil, []string{"version", "--config=/nowhere/c.yaml"}, "/nowhere/c.yaml"},
		"unknown lane":        {nil, []string{"send", "--user=mona", "--body=b", "--lane=urgent"}, `--lane: unknown lane "urgent": high, normal or low`},
		"nobody to send to":   {nil, []string{"send", "--body=b"}, "--user: there is no recipient: give --user,"},
		"nothing to send":     {nil, []string{"send", "--user=mona"}, "--body: there is nothing to send: give"},
		"an id too long":      {nil, []string{"send", "--user=mona", "--body=b", "--id=" + strings.Repeat("x", 129)}, "--id: has 129 bytes, at most 128 are allowed"},
		"a send-at of no zone": {
			nil, []string{"send", "--user=mona", "--body=b", "--send-at=2026-11-23T09:00:00"}, `--send-at: "2026-11-23T09:00:00" has no zone: end it with Z or an offset such as +02:00`,
		},
		"a negative ttl":       {nil, []string{"send", "--user=mona", "--body=b", "--ttl=-1s"}, `--ttl: "-1s" is not a positive duration`},
		"a bad URL":            {nil, []string{"health", "--probe=localhost"}, `--probe: "localhost" is not an http:// or https:// URL`},
		"a short secret":       {[]string{"WHISPER_AUTH_SECRET=short"}, []string{"token", "--user=mona"}, "--auth-secret: has only 5 bytes: give at least 32 (from WHISPER_AUTH_SECRET)"},
		"a bad Postgres URL":   {[]string{"WHISPER_POSTGRES=postgres://u:secret@:x:y/z"}, []string{"migrate"}, "--postgres: is not a URL: give one like"},
		"no push credentials":  {nil, []string{"push"}, "--apns-key-file"},
		"a lane of push":       {nil, []string{"push", "--push-lanes=fast"}, `--push-lanes: unknown lane "fast"`},
		"a gateway's secret":   {nil, []string{"gateway"}, "auth-secret"},
		"a key set nowhere":    {nil, []string{"gateway", "--auth-jwks=/nowhere/jwks.json"}, "--auth-jwks: open /nowhere/jwks.json"},
		"a key without a cert": {nil, []string{"gateway", "--tls-key=/nowhere.pem"}, "--tls-cert: a certificate needs its key"},
		"an algorithm":         {nil, []string{"gateway", "--auth-secret=" + testSecret, "--auth-algorithms=none"}, `--auth-algorithms: no key is for "none"`},
		"revoking nobody":      {nil, []string{"revoke"}, "--user"},
		"revoking a bad id":    {nil, []string{"revoke", "--user=" + strings.Repeat("x", 129)}, "--user: has 129 bytes"},
		"redrive of nothing":   {nil, []string{"deadletters", "redrive"}, "give the numbers of dead letters, or --all"},
		"a delivery id":        {nil, []string{"events", "--delivery=17"}, `--delivery: "17" is not a delivery id`},
		"an ack timeout":       {nil, []string{"dispatch", "--ack-timeout=0s"}, "--ack-timeout: 0s is not a positive duration"},
		"a rate of NaN":        {nil, []string{"project", "--max-error-rate=NaN"}, "--max-error-rate: NaN is out of range"},
		"how full, NaN":        {nil, []string{"project", "--max-utilization=nan"}, "--max-utilization: NaN is out of range"},
		"a minus and a 0":      {nil, []string{"project", "--max-utilization=-0"}, "--max-utilization: must be greater than 0"},
		"a pace of NaN":        {nil, []string{"send", "--segment=true", "--body=b", "--rate=NaN"}, "--rate: NaN is out of range"},
		"an unknown shell":     {nil, []string{"completion", "csh"}, "csh"},
		"a CA that is missing": {nil, []string{"topics", "plan", "--kafka-tls-ca=/nowhere.pem"}, "--kafka-tls-ca: open /nowhere.pem"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := whisper(t, tt.env, tt.args...)
			if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 2 and %q", got.code, got.stdout, got.stderr, tt.want)
			}
			if strings.Contains(got.stderr, "secret@") {
				t.Errorf("%q shows a password", got.stderr)
			}
		})
	}
}

func TestEveryCommandHasHelpAndACompletion(t *testing.T) {
	t.Parallel()
	if got := whisper(t, nil); got.code != exitOK || !strings.Contains(got.stdout, "Usage: whisper <command>") {
		t.Errorf("whisper alone: exit code %d, %s", got.code, got.stderr)
	}
	var walk func(path []string)
	walk = func(path []string) {
		help := whisper(t, nil, append(slices.Clone(path), "--help")...)
		if help.code != exitOK || !strings.Contains(help.stdout, "Usage: whisper "+strings.Join(path, " ")) {
			t.Errorf("%v --help: exit code %d, %s", path, help.code, help.stderr)
		}
		for _, word := range strings.Fields(whisper(t, nil, append(append([]string{completeCommand}, path...), "")...).stdout) {
			if len(path) > 0 && path[0] == "completion" {
				continue // shells, not commands
			}
			walk(append(slices.Clone(path), word))
		}
	}
	walk(nil)
	if got := whisper(t, nil, completeCommand, "topics", "apply", "--kafka-sasl-m").stdout; got != "--kafka-sasl-mechanism\n" {
		t.Errorf("completes a flag to %q", got)
	}
	if got := whisper(t, nil, completeCommand, "--log-format", "").stdout; got != "auto\ntext\njson\n" {
		t.Errorf("completes a value to %q", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := whisper(t, nil, "completion", shell); got.code != exitOK || !strings.Contains(got.stdout, completeCommand) {
			t.Errorf("completion %s: exit code %d, %q", shell, got.code, got.stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if got := whisper(t, nil, "version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "whisper ") {
		t.Errorf("exit code %d, %q", got.code, got.stdout)
	}
}
