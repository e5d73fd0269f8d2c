"""Experiments as their developers handle them: created, changed, started, paused, ended, rewound, cloned."""
