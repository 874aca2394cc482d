// Package durable holds the contestants that put messages on disk: a message counts as confirmed once it would survive
// the loss of power. After each turn they are closed, opened again, and must give back every message.
package durable
