// Package measure is what every benchmark of this module shares: contests whose contestants take turns, the account of
// every message, and the statistics.
//
// The machine drifts by a fifth and more between minutes, its disk by a factor of two. So contestants take turns of
// less than a second, round by round in one process, and what counts are ratios within a round. A turn whose messages
// are not all accounted for fails the whole run: a fast loser is no contestant.
package measure
