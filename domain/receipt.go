package domain

import (
	"errors"
	"strconv"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// A receipt names, together with the notification's id and the user, one delivery exactly. A frame carries it and a
// client hands it back with what it acknowledges or reports as read. An id alone does not do: it may be used again once
// the window of duplicates is over. Clients treat a receipt as opaque text; today it is the delivery id's time, in base
// 36. It is no secret: what a client may change is decided by readBy, not by knowing a receipt.

// Receipt is what the frame of a delivery with this id carries.
func Receipt(id DeliveryID) string { return string(appendReceipt(nil, id.Time().UnixMilli())) }

func appendReceipt(b []byte, requestedMs int64) []byte {
	return strconv.AppendInt(b, max(requestedMs, 0), 36)
}

// maxReceipt is how many characters 48 bits take.
const maxReceipt = 10

// ErrReceipt says that a text is none of our receipts.
var ErrReceipt = errors.New("is not a receipt: hand back the text of the notification's frame as it came")

// ReceiptOf names the delivery of a notification to a user that a receipt belongs to, or fails with [ErrReceipt].
func ReceiptOf(receipt, notificationID, userID string) (DeliveryID, error) {
	ms, err := strconv.ParseUint(receipt, 36, 48)
	if err != nil || ms == 0 || len(receipt) > maxReceipt || string(appendReceipt(nil, int64(ms))) != receipt {
		return DeliveryID{}, ErrReceipt
	}
	return NewDeliveryID(time.UnixMilli(int64(ms)), HashDelivery(notificationID, userID)), nil
}

// Timeless says that a fact's writer knew only the notification and the user.
func (id DeliveryID) Timeless() bool { return [6]byte(id[:6]) == [6]byte{} }

// ProvenRead says whether the node that tells of a read held the attempt itself. Any other read is a client's word about
// an id, which it may have guessed: it counts only for a delivery that was handed out, see readBy.
func ProvenRead(ev *whisperv1.Event) bool { return ev.GetDeliveryRead().GetAttempt() > 0 }
