package sheep

import "runtime/debug"

// release is the version of the programs. C Sheepdog ended at 1.0.
const release = "2.0"

// Version returns the version of the running program: the release and, if the
// build knew it, the revision of the sources.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 8 {
			return release + "_g" + s.Value[:8]
		}
	}
	return release
}
