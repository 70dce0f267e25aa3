package supply

// Remedy says what to do where a step of the gate is not good, by the step's code.
func Remedy(code string) string { return remedies[code] }

var remedies = map[string]string{
	"digest.sbom":           "Have the build write the SHA-256 of each component into its bill of materials, and give the one of this very build.",
	"digest.provenance":     "Give the provenance of this very build: one of another build is about other bytes.",
	"sbom.missing":          "Give a bill of materials (CycloneDX or SPDX) with the release: --sbom FILE.",
	"sbom.unreadable":       "Have it written as CycloneDX 1.4 to 1.6 or SPDX 2.3, and look at what is wrong with it.",
	"sbom.empty":            "Have the build name what it takes in: a bill of materials without components says nothing.",
	"sbom.unnamed":          "Have the build give each component a package URL and a version; or the policy may allow more of which nothing is known.",
	"sbom.supplier":         "Take it of a supplier that is allowed, or have two people allow this one in the policy.",
	"provenance.missing":    "Give the provenance that the build has signed: --provenance FILE.",
	"provenance.signature":  "Have it built and signed by a builder whose key the policy names. Was a builder's key exchanged? Then the policy has to name the new one.",
	"provenance.builder":    "Have it built by a builder that the policy names, or have two people name this one.",
	"provenance.unreadable": "Have the build write in-toto provenance (SLSA 0.2 or 1) in a DSSE envelope.",
	"provenance.build-type": "Build it in a way that the policy allows.",
	"provenance.source":     "Build it from a source that the policy allows. If nobody meant to build it from there, find out who did.",
	"advisories.sbom":       "It is decided with the bill of materials: mend step 2.",
	"advisories.database":   "Take in the ecosystem's advisories anew: hallmark advisory import, or the page Components.",
	"advisories.unknown":    "Have each component named as its ecosystem does; or the policy may allow more of which nothing is known.",
	"advisories.open":       "Build with the mended versions; or who may say so excuses the flaw with a signed VEX document: hallmark supply except.",
	"vex.expired":           "Look whether it still is none here, and have it excused anew: hallmark supply except.",
}
