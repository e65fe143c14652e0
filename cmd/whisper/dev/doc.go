// Package dev has the subcommands for developers: `whisper dev`, which runs everything in one process on embedded servers,
// with its demo, page and terminal; listen and token, to be a client; bench; and a simulated APNs.
//
// Nothing here is meant for production.
package dev
