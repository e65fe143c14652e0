package ops

import (
	"fmt"
	"io"
	"log/slog"
	"os"
)

// LogFormats are the values of the setting log-format; auto is text on a terminal and JSON elsewhere.
const LogFormats = "auto,text,json"

// NewLogger makes a logger that writes to w. Its format "auto" is text if terminal is true, and JSON otherwise.
func NewLogger(w io.Writer, format string, level slog.Level, terminal bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: sayDurations}
	if format == "json" || format != "text" && !terminal {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// sayDurations writes durations as text ("2.5s") in JSON, too, where they would be nanoseconds.
func sayDurations(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log-level: unknown %q: give debug, info, warn or error", s)
	}
}

// IsTerminal says whether a person reads what is written to w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
