package domain_test

import (
	"testing"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
)

func TestCheckID(t *testing.T) {
	t.Parallel()
	for id, c := range map[string]struct{ fresh, known bool }{
		"mona":                    {true, true},
		"a b":                     {true, true},
		"منى":                     {true, true},
		"می\u200cخواهم":           {true, true}, // a joiner that Persian needs
		"👩\u200d👩":                {true, true},
		"":                        {false, false},
		" ":                       {false, true},
		"\u00a0\u2003":            {false, true},
		"a\u009bb":                {false, true}, // C1: CSI
		"a\u0085b":                {false, true},
		"a\u202eb":                {false, true},
		"a\u2066b":                {false, true},
		"a\u200fb":                {false, true},
		"a\u2028b":                {false, true},
		"a\x1bb":                  {false, false},
		"a\x7fb":                  {false, false},
		"a\x00b":                  {false, false},
		"a\xff":                   {false, false},
		string(make([]byte, 129)): {false, false},
	} {
		if err := domain.CheckID(id); (err == nil) != c.fresh {
			t.Errorf("%q is new: %v", id, err)
		}
		if err := domain.CheckKnownID(id); (err == nil) != c.known {
			t.Errorf("%q is known: %v", id, err)
		}
	}
}

// New notifications and users are refused; what was taken before can still be ended.
func TestIDsOfBlanksAreNotTaken(t *testing.T) {
	t.Parallel()
	for _, id := range []string{" ", `a\u009bb`, `a\u202eb`} {
		for _, text := range []string{
			`{"id":"` + id + `","to":{"users":["mona"]},"content":{"body":"x"}}`,
			`{"to":{"users":["` + id + `"]},"content":{"body":"x"}}`,
			`{"to":{"users":["mona"]},"content":{"body":"x"},"collapse_key":"` + id + `"}`,
		} {
			if _, err := request.Parse([]byte(text), "application/json"); err == nil {
				t.Errorf("taken: %s", text)
			}
		}
		if _, err := request.Parse([]byte(`{"cancel":"`+id+`"}`), "application/json"); err != nil {
			t.Errorf("cancel: %v", err)
		}
	}
}
