// Package renewal says when a device asks again.
//
// Stage 3, field, on the device. Pure functions, which the simulator of a fleet uses too. They spread what began together: a fleet that
// was enrolled in an hour, or that found its server away for a day, must not come back in one. The package trusts nobody; what a server
// asks for is bounded.
package renewal

import "time"

// MaxWait bounds what a server may ask a device to wait.
const MaxWait = 24 * time.Hour

// RenewAt gives when a certificate is renewed: between two thirds and five sixths of its life. random is in [0, 1), drawn once for each
// certificate. A fleet that was enrolled at one moment renews over a sixth of the life; each device has at least another sixth left
// in which the server may be away.
func RenewAt(notBefore, notAfter time.Time, random float64) time.Time {
	life := notAfter.Sub(notBefore)
	if life <= 0 {
		return notBefore
	}
	return notBefore.Add(life*2/3 + time.Duration(float64(life/6)*bound(random)))
}

// Again gives how long a device waits after an attempt that failed: failures is how many in a row. It doubles from base to most, half of
// it random; and it is never less than what the server asked for, which is spread by half as much again.
func Again(base, most time.Duration, failures int, asked time.Duration, random float64) time.Duration {
	d := base << min(max(failures, 0), 20)
	if d <= 0 || d > most {
		d = most
	}
	random = bound(random)
	d = d/2 + time.Duration(float64(d/2)*random)
	asked = min(max(asked, 0), MaxWait)
	return max(d, asked+time.Duration(float64(asked/2)*random))
}

func bound(random float64) float64 {
	if random >= 0 && random < 1 {
		return random
	}
	return 0.5
}
