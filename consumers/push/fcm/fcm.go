// Package fcm hands attempts to Google's push service, Firebase Cloud Messaging, by its HTTP v1 API: messages, access
// tokens, pacing, and what its answers mean. [Classify] is the table of answers.
//
// It must not talk to Kafka, and must not log a registration token or a text.
package fcm

// Channel is the name of the channel, and of the provider.
const Channel = "fcm"
