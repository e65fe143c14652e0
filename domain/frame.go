package domain

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// Frame is the notification frame of the public contract, as a client reads it.
type Frame struct {
	Type      string          `json:"type"`
	ID        string          `json:"id"`
	Lane      string          `json:"lane"`
	Category  string          `json:"category"`
	Title     string          `json:"title,omitempty"`
	Body      string          `json:"body,omitempty"`
	URL       string          `json:"url,omitempty"`
	Image     string          `json:"image,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	At        time.Time       `json:"at"`
	ExpiresAt time.Time       `json:"expires_at"`
}

// NotificationFrame encodes what a client is to see of a delivery. It names no user, so everyone who
// shares the content shares the bytes.
func NotificationFrame(notificationID string, lane Lane, acc *whisperv1.DeliveryAccepted, content *whisperv1.Content) ([]byte, error) {
	frame, err := json.Marshal(Frame{
		Type:      "notification",
		ID:        notificationID,
		Lane:      lane.String(),
		Category:  acc.GetCategory(),
		Title:     content.GetTitle(),
		Body:      content.GetBody(),
		URL:       content.GetUrl(),
		Image:     content.GetImage(),
		Data:      content.GetData(),
		At:        time.UnixMilli(acc.GetAcceptedAtMs()).UTC(),
		ExpiresAt: time.UnixMilli(acc.GetExpiresAtMs()).UTC(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the frame of %s: %w", notificationID, err)
	}
	return frame, nil
}

func checkUTF8(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("is not UTF-8")
	}
	return nil
}
