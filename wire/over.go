package wire

import (
	"errors"
	"fmt"

	"golang.org/x/mod/semver"
)

// VersionRange is some versions: from From on, below Below, in semver's order. One of them may be left out.
type VersionRange struct {
	From  string `cbor:"1,keyasint,omitempty" json:"from,omitempty"`
	Below string `cbor:"2,keyasint,omitempty" json:"below,omitempty"`
}

func (v VersionRange) has(version string) bool {
	return (v.From == "" || CompareVersions(version, v.From) >= 0) && (v.Below == "" || CompareVersions(version, v.Below) < 0)
}

func (v VersionRange) String() string {
	switch {
	case v.From == "":
		return "below " + v.Below
	case v.Below == "":
		return "from " + v.From
	}
	return "from " + v.From + " below " + v.Below
}

// Bounds of what a release says of its ways.
const (
	MaxOver    = 8
	MaxBackFor = 2 * 366 * 24 * 3600 // seconds
)

// InstallsOver reports whether approvers allowed the release over a version that runs. Where they did not say, they allowed any.
func (r Release) InstallsOver(version string) bool {
	for _, v := range r.Over {
		if v.has(version) {
			return true
		}
	}
	return len(r.Over) == 0
}

// checkWays says whether the versions that it is installed over, and how long one may go back from it, are well said.
func (r Release) checkWays() error {
	if len(r.Over) > MaxOver {
		return fmt.Errorf("release: over %d ranges of versions, at most %d", len(r.Over), MaxOver)
	}
	for i, v := range r.Over {
		switch {
		case v.From == "" && v.Below == "":
			return errors.New("release: over a range of versions without an end")
		case v.From != "" && !semver.IsValid("v"+v.From), v.Below != "" && !semver.IsValid("v"+v.Below):
			return fmt.Errorf("release: over %s: not semver", v)
		case v.From != "" && v.Below != "" && CompareVersions(v.From, v.Below) >= 0:
			return fmt.Errorf("release: over %s: there is no such version", v)
		case i > 0 && (v.From == "" || r.Over[i-1].Below == "" || CompareVersions(r.Over[i-1].Below, v.From) > 0):
			return fmt.Errorf("release: over %s and %s: not rising, or not apart", r.Over[i-1], v)
		}
	}
	if r.BackFor > MaxBackFor {
		return fmt.Errorf("release: a way back for %d seconds, at most %d", r.BackFor, MaxBackFor)
	}
	return nil
}
