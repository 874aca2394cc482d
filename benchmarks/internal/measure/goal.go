package measure

// Goal is a figure to reach.
type Goal struct {
	What   string  `json:"what"`
	Want   float64 `json:"want"`
	Got    float64 `json:"got"`
	AtMost bool    `json:"at_most"` // Got must not exceed Want; otherwise it must not stay below
}

// Met reports whether it was reached.
func (g Goal) Met() bool {
	if g.AtMost {
		return g.Got <= g.Want
	}
	return g.Got >= g.Want
}

// Verdict says what was wanted, what was reached, and whether that is enough.
func (g Goal) Verdict() string {
	bound, verdict := "at least ", "missed"
	if g.AtMost {
		bound = "at most "
	}
	if g.Met() {
		verdict = "reached"
	}
	return bound + Figure(g.Want) + ": " + Figure(g.Got) + ", " + verdict
}
