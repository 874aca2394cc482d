// Package guard fails when this library becomes half as fast as it was, beside peers that are measured in the same
// rounds. Its margins are wide: it compares ratios on machines that are busy with other things.
package guard
