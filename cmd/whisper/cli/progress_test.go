package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestAShortScanShowsNoProgress, a long one does.
func TestAShortScanShowsNoProgress(t *testing.T) {
	t.Parallel()
	const quietFor = 2 * time.Second
	var out bytes.Buffer
	at := time.UnixMilli(1_800_000_000_000)
	line := ProgressLine{What: "events", Of: "offsets", W: &out, Now: func() time.Time { return at }, Quiet: quietFor}
	line.Show(0, 10)
	at = at.Add(quietFor / 2)
	line.Show(5, 10)
	if out.Len() > 0 {
		t.Errorf("said %s", out.String())
	}
	at = at.Add(quietFor)
	line.Show(8, 10)
	if !strings.Contains(out.String(), "events: 8 of 10 offsets, 80.0%") {
		t.Errorf("said %s", out.String())
	}
}
