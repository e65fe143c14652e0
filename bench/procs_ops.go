package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// get reads a page of the process's operations port.
func (p *process) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.ops+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", path, p.name, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", path, p.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", resp.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", path, p.name, err)
	}
	return page, nil
}

// metrics are the process's, by name and labels as Prometheus writes them: name{label="value"}.
func (p *process) metrics(ctx context.Context) (map[string]float64, error) {
	page, err := p.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	metrics := map[string]float64{}
	for line := range strings.Lines(string(page)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if at := strings.LastIndex(line, "} "); at >= 0 { // a label's value may hold a space
			name, text = line[:at+1], strings.TrimSpace(line[at+2:])
		}
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if metrics[name], err = strconv.ParseFloat(text, 64); err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", p.name, err)
		}
	}
	return metrics, nil
}

// profile keeps CPU profiles of the next seconds of processes, each in the file named after it; the returned function waits for
// them. A profile that fails is said and costs nothing else.
func (s Settings) profile(ctx context.Context, seconds int, files map[string]*process) (wait func()) {
	var wg sync.WaitGroup
	if s.Profiles == "" {
		return wg.Wait
	}
	for name, p := range files {
		wg.Go(func() {
			page, err := p.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, seconds)))
			if err == nil {
				err = os.WriteFile(filepath.Join(s.Profiles, name+".pprof"), page, 0o600)
			}
			if err != nil {
				s.say("profile of %s: %v", name, err)
			}
		})
	}
	return wg.Wait
}
