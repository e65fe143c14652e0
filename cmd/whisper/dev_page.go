package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/devpage"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/gateway"
)

// gatewayWithPage is a gateway on these sockets with the page of devpage beside it.
func (d *dev) gatewayWithPage(cfg gateway.Config, sockets net.Listener) ([]component, error) {
	cfg.Kafka, cfg.Now, cfg.Logger = d.role.client, d.role.now, d.role.log
	g, err := gateway.New(cfg)
	if err != nil {
		return nil, err
	}
	d.role.server.Handle("GET "+gateway.SessionsPath, g.Sessions())
	mux := http.NewServeMux()
	mux.Handle("/v1/", g.Handler())
	mux.Handle("/", devpage.Handler(devpage.Config{Token: d.pageToken, Send: d.pageSend}))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(d.role.log.Handler(), slog.LevelDebug), // what clients do wrong is theirs
	}
	serve := func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		if err := server.Serve(sockets); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve sockets and the page: %w", err)
		}
		return nil
	}
	return []component{{"gateway", g.Run, g.Ready}, {name: "sockets", run: serve}}, nil
}

func (d *dev) pageToken(user string) (string, error) {
	return gateway.SignToken([]byte(d.secret), user, time.Hour, d.role.now())
}

// pageCategory is that of what is sent from the page.
const pageCategory = "page"

func (d *dev) pageSend(ctx context.Context, lane domain.Lane, r devpage.Request) error {
	value, err := json.Marshal(sendRequest{
		ID: r.ID, Category: pageCategory, To: &audience{Users: []string{r.User}}, Content: &content{Title: r.Title, Body: r.Body},
	})
	if err != nil {
		return err
	}
	_, err = produceRequest(ctx, d.role.client, lane, r.ID, "", value)
	return err
}
