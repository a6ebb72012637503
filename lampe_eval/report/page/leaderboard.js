new Table(document.getElementById("standings"), data.standings.columns, objects(data.standings));
