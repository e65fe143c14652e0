// Package channels is the registry of push channels. A channel is its folder, its line here, and its line in domain/channels.go, from which
// dispatch, the topics and the operations port know it. A test holds the two lists together.
package channels

import (
	"github.com/klivvr/whisper/consumers/push/apns"
	"github.com/klivvr/whisper/consumers/push/apps"
	"github.com/klivvr/whisper/consumers/push/fcm"
)

// All are the channels whose credentials the apps file may have.
func All() []apps.Channel { return []apps.Channel{apns.InApps, fcm.InApps} }
