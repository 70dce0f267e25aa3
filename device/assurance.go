package device

// Assurance is what a device's word is worth: what holds it to what it was told, and shows that it did it.
type Assurance string

// The levels, the best first.
const (
	Enforces Assurance = "enforces" // runs our agent: it believes nothing but releases and commands that are proven to it, and shows by evidence what it runs
	Proves   Assurance = "proves"   // shows by evidence what it runs, and leaves it to the server what that is
	Says     Assurance = "says"     // a client of another update system: it takes what the server gives it, and what it runs is its own word
)

// Assurances lists the levels, the best first.
func Assurances() []Assurance { return []Assurance{Enforces, Proves, Says} }

// Valid reports whether a is one of Assurances.
func (a Assurance) Valid() bool { return a == Enforces || a == Proves || a == Says }

// Words says what a level means, for people.
func (a Assurance) Words() string {
	switch a {
	case Enforces:
		return "Takes only what is proven to it, and proves what it runs"
	case Proves:
		return "Proves what it runs, and takes what this server gives it"
	case Says:
		return "Takes what this server gives it; what it runs is its own word"
	}
	return "Nothing is known of what holds it to what it was told"
}
