package main

import (
	"testing"
)

func TestThePageOnPreferencesIsTrue(t *testing.T) {
	t.Parallel()
	runPage(t, "preferences.md", "whisper categories apply")
}
