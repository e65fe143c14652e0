package dev

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
	"github.com/klivvr/whisper/cmd/whisper/operate"
	"github.com/klivvr/whisper/cmd/whisper/roles"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/gateway"
)

// gatewayWithPage is a gateway on these sockets with the page of devpage beside it.
func (d *system) gatewayWithPage(cfg gateway.Config, sockets net.Listener) ([]roles.Component, error) {
	cfg.Kafka, cfg.Now, cfg.Logger = d.base.Client, d.base.Now, d.base.Log
	g, err := gateway.New(cfg)
	if err != nil {
		return nil, err
	}
	d.base.Server.Handle("GET "+gateway.SessionsPath, g.Sessions())
	mux := http.NewServeMux()
	mux.Handle("/v1/", g.Handler())
	mux.Handle("/", devpage.Handler(devpage.Config{Token: d.pageToken, Send: d.pageSend}))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(d.base.Log.Handler(), slog.LevelDebug), // what clients do wrong is theirs
	}
	serve := func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		if err := server.Serve(sockets); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve sockets and the page: %w", err)
		}
		return nil
	}
	return []roles.Component{{Name: "gateway", Run: g.Run, Ready: g.Ready}, {Name: "sockets", Run: serve}}, nil
}

func (d *system) pageToken(user string) (string, error) {
	return gateway.SignToken([]byte(d.secret), user, time.Hour, d.base.Now())
}

// pageCategory is that of what is sent from the page.
const pageCategory = "page"

func (d *system) pageSend(ctx context.Context, lane domain.Lane, r devpage.Request) error {
	value, err := json.Marshal(operate.Request{
		ID: r.ID, Category: pageCategory, To: &operate.Audience{Users: []string{r.User}}, Content: &operate.Content{Title: r.Title, Body: r.Body},
	})
	if err != nil {
		return err
	}
	_, err = operate.ProduceRequest(ctx, d.base.Client, lane, r.ID, "", value)
	return err
}
