//! Pages of runs that were really made, in a temporary folder.
