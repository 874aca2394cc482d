// Package benchmarks compares the transport with what its users would pick instead.
package benchmarks
