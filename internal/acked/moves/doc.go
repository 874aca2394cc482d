// Package moves has the tests of streams that move between real receivers. It is empty otherwise: the two halves of the
// acked protocol do not know each other.
package moves
