package decide_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/klivvr/whisper/domain/decide"
)

// TestThePageListsTheChecksInOrder: docs/preferences.md shows what the code asks, in its order.
func TestThePageListsTheChecksInOrder(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/preferences.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| # | check | it asks | otherwise |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("the page has no table of the checks")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")
	if len(rows) != len(decide.Checks) {
		t.Errorf("the page has %d checks, the code %d", len(rows), len(decide.Checks))
	}
	for i, c := range decide.Checks {
		if want := fmt.Sprintf("| %d | %s | %s | %s |", i+1, c.Name, c.Asks, c.Else); i >= len(rows) || rows[i] != want {
			t.Errorf("the page misses\n%s", want)
		}
	}
}
