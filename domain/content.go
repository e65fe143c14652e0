package domain

// The limits of a content, both in a request and when a template has rendered it.
const (
	MaxBodyBytes  = 4 << 10
	MaxTitleBytes = 1 << 10
	MaxLinkBytes  = 2 << 10 // url, image
	MaxDataBytes  = 8 << 10
)

var ContentFields = []string{"title", "body", "url", "image", "data"}
