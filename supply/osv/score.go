package osv

import (
	"strings"

	gocvss20 "github.com/pandatix/go-cvss/20"
	gocvss30 "github.com/pandatix/go-cvss/30"
	gocvss31 "github.com/pandatix/go-cvss/31"
	gocvss40 "github.com/pandatix/go-cvss/40"
)

// Score is the highest CVSS base score (4.0: with what the vector says beyond the base) that the advisory gives itself; 0 when it gives none that can be read. An advisory without a
// score is not a harmless one.
func (a Advisory) Score() (out float64) {
	for _, s := range a.Severity {
		out = max(out, score(s.Score))
	}
	return out
}

func score(vector string) float64 {
	switch {
	case strings.HasPrefix(vector, "CVSS:4.0/"):
		if v, err := gocvss40.ParseVector(vector); err == nil {
			return v.Score()
		}
	case strings.HasPrefix(vector, "CVSS:3.1/"):
		if v, err := gocvss31.ParseVector(vector); err == nil {
			return v.BaseScore()
		}
	case strings.HasPrefix(vector, "CVSS:3.0/"):
		if v, err := gocvss30.ParseVector(vector); err == nil {
			return v.BaseScore()
		}
	default:
		if v, err := gocvss20.ParseVector(vector); err == nil {
			return v.BaseScore()
		}
	}
	return 0
}
