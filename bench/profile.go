package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profile takes a CPU profile of each role over the middle of a hold; the returned function waits for
// them. A profile that fails is said and costs nothing else.
func (s *spine) profile(ctx context.Context, rate int) (wait func()) {
	var wg sync.WaitGroup
	if s.cfg.Profiles == "" {
		return wg.Wait
	}
	seconds := max(1, int(s.cfg.HoldFor/time.Second)/2)
	for _, p := range s.roles {
		wg.Go(func() {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.ops, seconds)
			if err := download(ctx, url, filepath.Join(s.cfg.Profiles, fmt.Sprintf("%s-%d.pprof", p.name, rate))); err != nil {
				s.say("profile of %s: %v", p.name, err)
			}
		})
	}
	return wg.Wait
}

func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, resp.Body)
	return joinClose(err, out)
}

func joinClose(err error, c io.Closer) error {
	if closeErr := c.Close(); err == nil {
		return closeErr
	}
	return err
}
