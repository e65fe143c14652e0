// Package ops is what operators touch of a running process: the operations HTTP server (/livez, /readyz,
// /metrics, profiles), the health document of the whole system, and how logs are written.
//
// It knows Kafka only to measure it and takes everything else as functions and interfaces; no role and
// no read model is imported here, and nothing here decides about a delivery.
package ops
