package roles

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/gateway"
)

// all are the roles as the program has them.
type all struct {
	Gateway  Gateway  `cmd:""`
	Dispatch Dispatch `cmd:""`
	Intake   Intake   `cmd:""`
	Push     Push     `cmd:""`
	Project  Project  `cmd:""`
}

// flagDefaults are the defaults of all flags of the roles, by name, as the help shows them.
func flagDefaults(t *testing.T) map[string]string {
	t.Helper()
	parser, err := kong.New(&all{}, Defaults())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, role := range parser.Model.Children {
		for _, flag := range role.Flags {
			found[flag.Name] = flag.Default
		}
	}
	return found
}

// canonical is a default as a page writes it, as a flag has it: 2,000/s is 2000, 16 KiB is 16384, 5 m is 5m, 5% is 0.05.
func canonical(text string) string {
	text = strings.TrimSuffix(strings.ReplaceAll(text, ",", ""), "/s")
	text, _, _ = strings.Cut(text, ": ") // an explanation follows
	number, unit, _ := strings.Cut(text, " ")
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		number, unit = percent, "%"
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return text
	}
	switch unit {
	case "KiB":
		return strconv.Itoa(int(n) << 10)
	case "MiB":
		return strconv.Itoa(int(n) << 20)
	case "%":
		return strconv.FormatFloat(n/100, 'g', -1, 64)
	}
	if d, err := time.ParseDuration(number + unit); err == nil && unit != "" {
		return defaultText(d)
	}
	return text
}

// The defaults that docs/operations.md tells are the code's: those of the table of the gateway's settings, which has all
// of them, and those in brackets after a setting's name.
func TestTheOperatorsPageTellsTheDefaults(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	have := flagDefaults(t)
	told := map[string]bool{}
	check := func(name, text string) {
		told[name] = true
		want, known := have[name]
		if known && canonical(text) != want {
			t.Errorf("the page says that --%s is %q by default, the code says %q", name, text, want)
		}
	}
	_, table, found := strings.Cut(string(page), "| setting | default |")
	if !found {
		t.Fatal("docs/operations.md has no table of settings")
	}
	flags := regexp.MustCompile("`--([a-z-]+)`")
	rows := 0
	for _, line := range strings.Split(table, "\n")[2:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		rows++
		cells := strings.Split(line, "|")
		names := flags.FindAllStringSubmatch(cells[1], -1)
		values := strings.Split(strings.TrimSpace(cells[2]), ", ")
		for i, name := range names {
			if _, known := have[name[1]]; !known {
				t.Errorf("the page names --%s, which no role knows", name[1])
				continue
			}
			value := values[min(i, len(values)-1)]
			value = strings.Trim(value, "`")
			if text := have[name[1]]; text == "" { // nothing, in the page's words
				told[name[1]] = true
				if regexp.MustCompile(`^\d`).MatchString(value) {
					t.Errorf("the page says that --%s is %q by default, the code has none", name[1], value)
				}
				continue
			}
			check(name[1], value)
		}
	}
	if rows < 20 {
		t.Errorf("only %d rows were found", rows)
	}
	for _, m := range regexp.MustCompile("`(?:--)?([a-z]+(?:-[a-z]+)+)` \\((\\d[^);]*)").FindAllStringSubmatch(string(page), -1) {
		check(m[1], m[2])
	}
	// Every setting that sockets and tokens have of their own is in the table.
	for _, of := range []reflect.Type{reflect.TypeFor[gatewayFlags](), reflect.TypeFor[authFlags](), reflect.TypeFor[tlsFlags]()} {
		for i := range of.NumField() {
			name := of.Field(i).Tag.Get("name")
			if name == "" {
				name = strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(of.Field(i).Name, "$1-$2"))
			}
			if _, known := have[name]; !known {
				t.Errorf("%s.%s is no flag %q", of.Name(), of.Field(i).Name, name)
			}
			if !told[name] {
				t.Errorf("the page does not list --%s", name)
			}
		}
	}
	for _, name := range []string{"max-error-rate", "max-utilization", "max-wait-low", "max-projection-lag", "transaction-timeout", "max-drop-days", "daily-days"} {
		if !told[name] {
			t.Errorf("the page does not tell the default of %s", name)
		}
	}
}

// A default is written where its setting is and nowhere else: every number and duration of a role's flags is a variable
// of Defaults, but those that only the command knows.
func TestDefaultsAreWrittenOnce(t *testing.T) {
	t.Parallel()
	own := map[string]bool{"max-per-address": true} // no bound, which is the flag's own word for it
	used := map[string]bool{}
	var look func(of reflect.Type)
	look = func(of reflect.Type) {
		for i := range of.NumField() {
			field := of.Field(i)
			if field.Type.Kind() == reflect.Struct {
				look(field.Type)
				continue
			}
			text, has := field.Tag.Lookup("default")
			if variable, ok := strings.CutPrefix(text, "${"); ok {
				used[strings.TrimSuffix(variable, "}")] = true
				continue
			}
			name := strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(field.Name, "$1-$2"))
			kind := field.Type.Kind()
			number := kind >= reflect.Int && kind <= reflect.Float64
			if has && number && !own[name] && field.Type != reflect.TypeFor[replication]() {
				t.Errorf("%s.%s has a default of its own: %s", of.Name(), field.Name, text)
			}
		}
	}
	look(reflect.TypeFor[all]())
	for name := range defaultTexts() {
		if !used[name] {
			t.Errorf("no flag uses the default %s", name)
		}
	}
}

// What the flags make of no settings at all is what the package makes of an empty Config.
func TestFlagsAndConfigsHaveTheSameDefaults(t *testing.T) {
	t.Parallel()
	var c all
	parser, err := kong.New(&c, Defaults())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"gateway"}); err != nil {
		t.Fatal(err)
	}
	want, got := gateway.Defaults(), c.Gateway.Sockets.config()
	for i := range reflect.TypeFor[gateway.Config]().NumField() {
		field := reflect.TypeFor[gateway.Config]().Field(i)
		given, byDefault := reflect.ValueOf(got).Field(i), reflect.ValueOf(want).Field(i)
		if !given.IsZero() && field.Name != "Addr" && !given.Equal(byDefault) {
			t.Errorf("%s: the flags give %v, the package %v", field.Name, given, byDefault)
		}
	}
}

func TestDefaultsAreWrittenReadably(t *testing.T) {
	t.Parallel()
	for value, want := range map[any]string{
		24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 10 * time.Second: "10s", time.Minute: "1m", 50 * time.Millisecond: "50ms",
		5_000: "5000", 0.05: "0.05", "text": "text", 100 * time.Hour: "100h", 70 * time.Second: "1m10s",
	} {
		if got := defaultText(value); got != want {
			t.Errorf("%v is written %s, want %s", value, got, want)
		}
	}
}
